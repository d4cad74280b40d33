/** The same with more transactions. */
import { pairsSuite } from './suite.js';

pairsSuite({ seed: 11, count: 19_000, learn: 1500, timeoutMs: 30 * 60_000 });
