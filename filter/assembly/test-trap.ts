// The same filter with a trigger for fault tests: a request with x-test-trap traps the VM. Never shipped.
import { armTrap } from './request';
export * from './index';
armTrap();
