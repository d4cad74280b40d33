import { strict as assert } from 'node:assert';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { ROOT } from '../../../demo/src/mesh/envoy.js';

const run = promisify(execFile);
/** Twice what it takes on a machine with two cores. */
const DEMO_MS = 120_000;

describe('the demo', function () {
  this.timeout(DEMO_MS + 10_000);

  it('sees every promise it makes, and ends by itself', async () => {
    const { stdout } = await run(process.execPath, [join(ROOT, 'build/js/demo/src/main.js')], { timeout: DEMO_MS });
    assert.match(stdout, /Summary/);
    assert.doesNotMatch(stdout, /NOT SEEN/);
  });
});
