// The same with a hundred thousand, and a million over time.
import './many-lives.test.js';
