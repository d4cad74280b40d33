// The same with the numbers that are promised.
import './http2-abuse.test.js';
