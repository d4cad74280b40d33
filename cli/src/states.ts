// States as words, and their colours.

import type { Colors } from './io.js';
import type { Cell } from './table.js';

/** `TRANSACTION_STATE_FAILED` -> `failed`; an unset state -> `unknown`. */
export function stateOf(name: string): string {
  const word = name.replace(/^(TRANSACTION|INSTANCE)_STATE_/, '').toLowerCase();
  return word === 'unspecified' ? 'unknown' : word;
}

export function stateCell(state: string, colors: Colors): Cell {
  const paint = {
    failed: colors.red,
    doomed: colors.red,
    silent: colors.yellow,
    expected: colors.yellow,
    gone: colors.dim,
    running: colors.cyan,
  }[state];
  return { text: state, ...(paint === undefined ? {} : { paint }) };
}
