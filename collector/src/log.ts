// The collector's log: JSON lines on stderr. `error` means that someone should act.

import { pino, type Logger } from 'pino';

export type { Logger };

export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'silent'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** Written at once: what was logged before a crash is there to be read. */
export function openLog(level: LogLevel): Logger {
  const formatters = { level: (label: string): object => ({ level: label }) };
  const options = { level, base: null, formatters, timestamp: pino.stdTimeFunctions.isoTime };
  return pino(options, pino.destination({ dest: 2, sync: true }));
}
