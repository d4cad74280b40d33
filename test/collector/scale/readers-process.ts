// The process of the readers: told whom to ask, then asked how it went.

import { hammer, type ReaderFigures, type ReaderPlan } from './readers.js';

let figures: ReaderFigures | undefined;

process.on('message', (order: ReaderPlan | 'end') => {
  if (order !== 'end') figures = hammer(order);
  process.send!(figures!);
});
process.on('disconnect', () => process.exit(0));
