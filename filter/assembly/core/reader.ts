// Reads protobuf without generated code: one cursor, which every message opens anew.
let at: usize = 0;
let end: usize = 0;
let broken: bool = false;

/** Where the last `span` lies. */
export let spanPtr: usize = 0;

export function open(ptr: usize, size: u32): void {
  at = ptr;
  end = ptr + size;
  broken = false;
}

export function more(): bool {
  return at < end && !broken;
}

/** False once anything was not protobuf. */
export function fine(): bool {
  return !broken;
}

export function position(): usize {
  return at;
}

export function fail(): void {
  broken = true;
}

export function varint(): u64 {
  let v: u64 = 0;
  let shift: u32 = 0;
  while (at < end && shift < 64) {
    const b = load<u8>(at++);
    v |= ((b & 0x7f) as u64) << shift;
    if (b < 0x80) return v;
    shift += 7;
  }
  broken = true;
  return 0;
}

export function fixed64(): u64 {
  if (broken || end - at < 8) {
    broken = true;
    return 0;
  }
  at += 8;
  return load<u64>(at - 8);
}

/** Size of a length-delimited field, which starts at `spanPtr`; moves past it. */
export function span(): u32 {
  const n = varint();
  if (broken || n > ((end - at) as u64)) {
    broken = true;
    return 0;
  }
  spanPtr = at;
  at += n as usize;
  return n as u32;
}

/** Past a field of the given wire type. */
export function skip(wire: u32): void {
  if (wire == 0) varint();
  else if (wire == 1) fixed64();
  else if (wire == 2) span();
  else if (wire == 5 && end - at >= 4) at += 4;
  else broken = true;
}
