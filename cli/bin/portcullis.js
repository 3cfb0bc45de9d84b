#!/usr/bin/env node
/** `portcullis`. It is not compiled, because npm links a command of a clone only if its file is there before the first build. */

import '../dist/src/main.js';
