/** The randomised suites with their full counts; TEST_LONG=1 sets them. */
import './config.test.js';
import './fuzz-headers.test.js';
import './host-faults.test.js';
import './hostile-host.test.js';
import './memory.test.js';
import './odd-requests.test.js';
import './order.test.js';
import './rollback.test.js';
import './transaction-key.test.js';
