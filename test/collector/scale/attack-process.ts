// The process of an attacker: told what to do, says how it went.

import { attack, type Attack } from './attacks.js';

process.on('message', (what: Attack) => void attack(what).then(outcome => process.send!(outcome)));
process.on('disconnect', () => process.exit(0));
