#!/bin/sh
echo "Hello, $GREETED! I know @WORDS@ words and am user $(id -un)."
