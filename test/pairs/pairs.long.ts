/** The same with many transactions. */
import { pairsSuite } from './suite.js';

pairsSuite({ seed: 11, count: 100_000, learn: 1500, timeoutMs: 30 * 60_000 });
