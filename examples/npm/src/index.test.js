const test = require("node:test");
const assert = require("node:assert");
const { report } = require("./index.js");

test("words are counted", () => assert.strictEqual(report("one two"), "2 words"));
