// How an answer says that it is out of date: the store of several replicas could not be heard.

import { Metadata } from '@grpc/grpc-js';

/** Name of the metadata, and of the HTTP header: for how long, ms. Absent = the answer is up to date. */
export const STALE_METADATA = 'meshpulse-stale-ms';

/** Says so before the answer; nothing when it is up to date. */
export function sayStale(call: { sendMetadata(metadata: Metadata): void }, staleMs: number): void {
  if (staleMs === 0) return;
  const metadata = new Metadata();
  metadata.set(STALE_METADATA, String(Math.round(staleMs)));
  call.sendMetadata(metadata);
}
