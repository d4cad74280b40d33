/** How often the randomised suites run: enough for every change by default, much more with TEST_LONG. */

function count(name: string, usual: number, long: number): number {
  const text = process.env[`MESHPULSE_RUNS_${name}`];
  if (text !== undefined && /^\d+$/.test(text)) return Number(text);
  return process.env['TEST_LONG'] === '1' ? long : usual;
}

export const RUNS = {
  long: process.env['TEST_LONG'] === '1',
  /** Header sets whose order is compared with the contract's. */
  orders: count('ORDERS', 10_000, 200_000),
  /** traceparent values, valid and not. */
  traceparents: count('TRACEPARENTS', 100_000, 1_000_000),
  /** Malformed pluginConfigs. */
  configs: count('CONFIGS', 10_000, 100_000),
  /** Header sets of any bytes. */
  headers: count('HEADERS', 50_000, 1_000_000),
  /** Requests whose properties are nonsense. */
  properties: count('PROPERTIES', 10_000, 200_000),
  /** Random sequences of callbacks. */
  sequences: count('SEQUENCES', 600, 5_000),
  /** Requests of the memory test. */
  requests: count('REQUESTS', 200_000, 1_000_000),
} as const;
