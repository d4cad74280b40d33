// Paths that some server or framework takes for one and the same.

/** Numbers in [0, 1), the same for the same seed (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

type Random = () => number;

const oneOf = <T>(random: Random, first: T, ...rest: T[]): T =>
  [first, ...rest][Math.floor(random() * (rest.length + 1))] ?? first;

/** Layers of encoding that are put on: two, for a proxy that decodes and an application that does so again. */
const LAYERS_MAX = 2;

const hex = (c: string): string => `%${c.charCodeAt(0).toString(16).padStart(2, '0')}`;

function encoded(c: string, random: Random): string {
  let text = hex(c);
  if (random() < 0.5) text = text.toUpperCase();
  for (let layer = 1; layer < LAYERS_MAX && random() < 0.3; layer++) text = text.replaceAll('%', '%25');
  return text;
}

function slash(random: Random): string {
  const one = () => oneOf(random, '/', '/', '/', '\\', encoded('/', random), encoded('\\', random));
  const slashes = random() < 0.3 ? `${one()}${one()}` : one();
  // Who resolves `x/..` before it decodes takes what is in front of an encoded slash away with it.
  const plain = /^\/+$/.test(slashes);
  return `${slashes}${plain ? detour(random) : oneOf(random, '', './', '%2e/')}`;
}

/** What resolves a path as a URL takes the first segment behind two slashes for a host. */
function first(random: Random): string {
  return `${random() < 0.1 ? '//any.host' : ''}/${detour(random)}`;
}

/** Segments that lead nowhere. */
function detour(random: Random): string {
  return oneOf(random, '', '', '', './', '%2e/', 'x/../', 'x/%2e%2E/', '.;a=b/');
}

function letter(c: string, random: Random): string {
  const cased = random() < 0.2 ? (random() < 0.5 ? c.toUpperCase() : c.toLowerCase()) : c;
  return random() < 0.2 ? encoded(cased, random) : cased;
}

/** `path` in one of the spellings that mean it somewhere. It begins with a plain `/`, as requests must. */
export function spellings(path: string, random: Random): string {
  const segments = path.slice(1).split('/');
  const spelt = segments.map(segment => [...segment].map(c => letter(c, random)).join(''));
  const body = spelt.map((segment, i) => {
    const parameters = random() < 0.15 ? oneOf(random, ';a=b', ';', '%3bv=1') : '';
    return `${i === 0 ? first(random) : slash(random)}${segment}${parameters}`;
  });
  const end = oneOf(random, '', '', '', '/', '//', '/.', '?x=1', '?', '%3fx', '%00', '/x/..');
  return `${body.join('')}${end}`;
}
