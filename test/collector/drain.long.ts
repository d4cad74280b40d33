// The same with as many streams as a drain is promised for.
import './drain.test.js';
