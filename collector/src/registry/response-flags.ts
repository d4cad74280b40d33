// Envoy's response flags: bit number -> short name, as in its access logs.
// Follows `CoreResponseFlag` in envoy/stream_info/stream_info.h.

const NAMES: readonly string[] = [
  'LH', // failed local health check
  'UH', // no healthy upstream
  'UT', // upstream request timeout
  'LR', // local reset
  'UR', // upstream remote reset
  'UF', // upstream connection failure
  'UC', // upstream connection termination
  'UO', // upstream overflow
  'NR', // no route found
  'DI', // delay injected
  'FI', // fault injected
  'RL', // rate limited
  'UAEX', // unauthorized by the external service
  'RLSE', // rate limit service error
  'DC', // downstream connection termination
  'URX', // upstream retry limit exceeded
  'SI', // stream idle timeout
  'IH', // invalid Envoy request headers
  'DPE', // downstream protocol error
  'UMSDR', // upstream max stream duration reached
  'RFCF', // response from cache filter
  'NFCF', // no filter config found
  'DT', // duration timeout
  'UPE', // upstream protocol error
  'NC', // no cluster found
  'OM', // overload manager
  'DF', // DNS resolution failed
  'DO', // drop overload
  'DR', // downstream remote reset
  'UDO', // unconditional drop overload
];

const known = new Map<number, string>([[0, '']]);

/** Combinations remembered; there are few in practice, and a sender cannot make us remember more. */
const KNOWN_MAX = 4096;

/**
 * Short names of the bits that are set, lowest first, comma-separated, e.g. `UT,URX`. Empty for none;
 * a bit without a name reads `bit30`.
 */
export function responseFlagNames(bits: number): string {
  const before = known.get(bits);
  if (before !== undefined) return before;
  const names: string[] = [];
  for (let bit = 0; bit < 32; bit++) if ((bits >>> bit) & 1) names.push(NAMES[bit] ?? `bit${bit}`);
  const text = names.join(',');
  if (known.size < KNOWN_MAX) known.set(bits, text);
  return text;
}
