const words = require("words");

exports.report = (text) => `${words(text)} words`;
