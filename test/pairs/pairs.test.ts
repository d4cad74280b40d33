/** Early rollback changes nothing for what succeeds, and nothing of what is left behind by what fails. */
import { pairsSuite } from './suite.js';

pairsSuite({ seed: 7, count: 2000, learn: 1100, timeoutMs: 120_000 });
pairsSuite({ seed: 5, count: 1600, learn: 700, quiet: true, timeoutMs: 120_000 });
