import assert from 'node:assert/strict';
import descriptor from 'protobufjs/ext/descriptor/index.js';
import { reflectedDefinitions } from '../../collector/src/rpc/protos.js';

type File = descriptor.IFileDescriptorProto;
type MessageType = descriptor.IDescriptorProto;

const bytes = Object.values(reflectedDefinitions).flatMap(definition =>
  'fileDescriptorProtos' in definition ? (definition.fileDescriptorProtos as Buffer[]) : [],
);
const files = new Map<string, File>();
for (const one of new Set(bytes)) {
  const file = descriptor.FileDescriptorProto.decode(one) as File;
  files.set(file.name!, file);
}

const below = (scope: string, messages: readonly MessageType[] = []): [string, MessageType][] =>
  messages.flatMap(message => {
    const name = `${scope}.${message.name!}`;
    return [[name, message] as [string, MessageType], ...below(name, message.nestedType)];
  });

/** Where each message and enum is declared. */
const homes = new Map<string, string>();
for (const { name, package: scope, messageType, enumType } of files.values()) {
  for (const [full, message] of below(`.${scope!}`, messageType)) {
    homes.set(full, name!);
    for (const one of message.enumType ?? []) homes.set(`${full}.${one.name!}`, name!);
  }
  for (const one of enumType ?? []) homes.set(`.${scope!}.${one.name!}`, name!);
}

/** What protoc writes, and clients in other languages refuse to do without. */
describe('descriptors for reflection', () => {
  it('are there for every service, health included', () => {
    const services = [...files.values()].flatMap(file =>
      (file.service ?? []).map(service => `${file.package!}.${service.name!}`),
    );
    for (const name of ['grpc.health.v1.Health', 'meshpulse.v1.Ingest', 'meshpulse.v1.Registry']) {
      assert.ok(services.includes(name), services.join(' '));
    }
  });

  it('name every type in full, and import the file that it is from', () => {
    for (const file of files.values()) {
      const fields = below(`.${file.package!}`, file.messageType).flatMap(([, message]) => message.field ?? []);
      const methods = (file.service ?? []).flatMap(service => service.method ?? []);
      const used = [
        ...fields.map(field => field.typeName ?? '').filter(name => name !== ''),
        ...methods.flatMap(method => [method.inputType!, method.outputType!]),
      ];
      assert.ok(used.length > 0 || file.package === 'google.protobuf', file.name);
      for (const name of used) {
        const home = homes.get(name);
        assert.ok(home !== undefined, `${name} in ${file.name!}`);
        const imports = (file.dependency ?? []) as string[];
        assert.ok(home === file.name || imports.includes(home), `${file.name!} does not import ${home}`);
      }
    }
  });

  it('call the message behind a map after its field', () => {
    for (const file of files.values()) {
      for (const [name, message] of below(`.${file.package!}`, file.messageType)) {
        if (message.options?.mapEntry === true) assert.match(name, /Entry$/);
      }
    }
  });
});
