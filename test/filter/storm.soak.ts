// For a minute.
import './storm.test.js';
