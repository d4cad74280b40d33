import { randomSuite } from './store-random.js';

randomSuite(400);
