// Where a command writes to, and what it may know of the world.

import picocolors from 'picocolors';

export type Colors = ReturnType<typeof picocolors.createColors>;

export interface Io {
  /** Answers. */
  readonly out: (text: string) => void;
  /** Notices, for people: never part of an answer. */
  readonly note: (text: string) => void;
  readonly nowMs: () => number;
  readonly colors: Colors;
}

/** Standard output and error. Colours only on a terminal, and never with NO_COLOR. */
export function processIo(env: NodeJS.ProcessEnv = process.env): Io {
  // A reader that has seen enough (`| head`) is no failure.
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EPIPE') process.exit(0);
      throw error;
    });
  }
  const noColor = (env['NO_COLOR'] ?? '') !== '';
  return {
    out: text => void process.stdout.write(text),
    note: text => void process.stderr.write(text),
    nowMs: () => Date.now(),
    colors: picocolors.createColors(process.stdout.isTTY && !noColor),
  };
}
