/** The randomised suites with their full counts; TEST_LONG=1 sets them. */
import './mutated.test.js';
