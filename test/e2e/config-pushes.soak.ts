// 500 configurations and 20 minutes of load, by default 1000 requests a second.
//
// SOAK_RATE (requests per second), SOAK_MINUTES and SOAK_PUSHES change the plan.
import { assertSound, configPushes, shown } from './support/config-pushes.js';

const RATE = Number(process.env['SOAK_RATE'] ?? 1000);
const MINUTES = Number(process.env['SOAK_MINUTES'] ?? 20);
const PUSHES = Number(process.env['SOAK_PUSHES'] ?? 500);
const DURATION_MS = MINUTES * 60_000;
/** Start, the last answers and reports. */
const AROUND_MS = 300_000;

describe('soak', function () {
  this.timeout(DURATION_MS + AROUND_MS);

  it(`${PUSHES} configurations in ${MINUTES} min at ${RATE} requests/s`, async () => {
    const plan = {
      by: 'filter',
      pushes: PUSHES,
      ratePerSecond: RATE,
      durationMs: DURATION_MS,
      sampleMs: 5000,
    } as const;
    const findings = await configPushes(plan);
    console.log(shown(findings));
    assertSound(findings, plan);
  });
});
