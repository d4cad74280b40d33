import { randomSuite } from './store-random.js';

randomSuite(10_000);
