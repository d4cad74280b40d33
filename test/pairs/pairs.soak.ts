/** The same with very many: ten minutes of both cores. */
import { pairsSuite } from './suite.js';

pairsSuite({ seed: 11, count: 100_000, learn: 1500, timeoutMs: 30 * 60_000 });
