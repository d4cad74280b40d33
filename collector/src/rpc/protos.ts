// The services as grpc-js wants them, loaded from the proto files at start.

import type { ServiceDefinition } from '@grpc/grpc-js';
import { loadSync, type MessageTypeDefinition, type Options, type PackageDefinition } from '@grpc/proto-loader';
import { protoPath as healthProto } from 'grpc-health-check';
import type { Reply } from '../ingest/ingest.js';
import { PROTOS } from '../paths.js';
import { encodeReply } from './encode-reply.js';
import { completeDescriptors } from './reflected.js';

const FILES = ['ingest', 'registry', 'rollback', 'transactions'].map(name => `meshpulse/v1/${name}.proto`);

/** 64-bit values as decimal text, enums by name: exact, and as proto3 JSON has them. */
const OPTIONS: Options = { longs: String, enums: String, oneofs: true, includeDirs: [PROTOS] };

export const definitions: PackageDefinition = loadSync(FILES, OPTIONS);

/** The same, and health, with the field names of the files, which reflection has to show. */
export const reflectedDefinitions: PackageDefinition = completeDescriptors({
  ...loadSync(FILES, { ...OPTIONS, keepCase: true }),
  ...loadSync(healthProto, { keepCase: true }),
});

export const PACKAGE = 'meshpulse.v1';
export const SERVICES = ['Ingest', 'Registry', 'Transactions', 'Rollback'] as const;

export function service(name: (typeof SERVICES)[number]): ServiceDefinition {
  return definitions[`${PACKAGE}.${name}`] as ServiceDefinition;
}

export function message(name: string): MessageTypeDefinition<object, object> {
  return definitions[`${PACKAGE}.${name}`] as MessageTypeDefinition<object, object>;
}

/** The service that takes reports: its requests come as the bytes they are, and plain replies are made by hand. */
export function reportService(): ServiceDefinition {
  const raw = (bytes: Buffer): Buffer => bytes;
  return Object.fromEntries(
    Object.entries(service('Ingest')).map(([name, method]) => {
      const responseSerialize = (reply: Reply): Buffer => encodeReply(reply, method.responseSerialize);
      return [name, { ...method, requestDeserialize: raw, responseSerialize }];
    }),
  );
}
