// Which of several replicas a duty falls to. Pure.
//
// Rendezvous hashing: each replica has a score for each name, the highest has the duty. All replicas that know the
// same members come to the same answer without asking, and when one goes only its own share moves.

/** The member that `name` falls to; undefined when there is none. The order of `members` does not matter. */
export function ownerOf(name: string, members: Iterable<string>): string | undefined {
  let owner: string | undefined;
  let best = -1;
  const seed = hash32(name, 0);
  for (const member of members) {
    const score = hash32(member, seed);
    if (score < best || (score === best && owner !== undefined && member > owner)) continue;
    best = score;
    owner = member;
  }
  return owner;
}

/** 32 bits, each of which depends on every character. */
function hash32(text: string, seed: number): number {
  let hash = seed ^ 0x9e3779b9;
  for (let at = 0; at < text.length; at++) {
    hash = Math.imul(hash ^ text.charCodeAt(at), 0x5bd1e995);
    hash ^= hash >>> 15;
  }
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
