// Descriptors that reflection can show.
//
// proto-loader makes one descriptor a package, without its imports and with type names that only
// resolve by searching the packages around. Clients in C++, Go and Java want what protoc writes: every
// type by its full name, and every file that it comes from imported. Otherwise they refuse the lot.

import type { PackageDefinition } from '@grpc/proto-loader';
import descriptor from 'protobufjs/ext/descriptor/index.js';

type File = descriptor.IFileDescriptorProto;
type MessageType = descriptor.IDescriptorProto;

/** The same definitions, their descriptors as protoc would write them. */
export function completeDescriptors(definitions: PackageDefinition): PackageDefinition {
  const files = new Map<string, File>();
  for (const { fileDescriptorProtos = [] } of Object.values(definitions) as { fileDescriptorProtos?: Buffer[] }[]) {
    for (const bytes of fileDescriptorProtos) {
      const file = descriptor.FileDescriptorProto.decode(bytes) as File;
      if (!files.has(file.name!)) files.set(file.name!, file);
    }
  }
  for (const file of files.values()) file.messageType?.forEach(nameMapEntries);
  const homes = new Map<string, string>();
  for (const file of files.values()) for (const name of typesOf(file)) homes.set(name, file.name!);
  for (const file of files.values()) complete(file, homes);
  const encoded = [...files.values()].map(file => Buffer.from(descriptor.FileDescriptorProto.encode(file).finish()));
  return Object.fromEntries(
    Object.entries(definitions).map(([name, definition]) => [
      name,
      'fileDescriptorProtos' in definition ? { ...definition, fileDescriptorProtos: encoded } : definition,
    ]),
  ) as PackageDefinition;
}

/** The hidden message behind a map field is called after the field, and `Entry`. */
function nameMapEntries(message: MessageType): void {
  for (const nested of message.nestedType ?? []) {
    nameMapEntries(nested);
    if (nested.options?.mapEntry !== true || nested.name!.endsWith('Entry')) continue;
    const field = message.field?.find(one => one.typeName === nested.name);
    nested.name = `${nested.name!}Entry`;
    if (field !== undefined) field.typeName = nested.name;
  }
}

/** Full names, with a dot in front, of the messages and enums of a file. */
function typesOf(file: File): string[] {
  const scope = `.${file.package!}`;
  return [...namesBelow(scope, file.messageType ?? []), ...(file.enumType ?? []).map(one => `${scope}.${one.name!}`)];
}

function namesBelow(scope: string, messages: readonly MessageType[]): string[] {
  return messages.flatMap(message => {
    const name = `${scope}.${message.name!}`;
    const enums = (message.enumType ?? []).map(one => `${name}.${one.name!}`);
    return [name, ...enums, ...namesBelow(name, message.nestedType ?? [])];
  });
}

/** Names types in full, and imports the files they are from. `homes`: file of each type. */
function complete(file: File, homes: ReadonlyMap<string, string>): void {
  const imports = new Set<string>();
  const resolve = (scope: string, name: string): string => {
    const full = name.startsWith('.') ? name : search(scope, name, homes);
    const home = homes.get(full);
    if (home === undefined) throw new Error(`${name}, used in ${scope}, is declared nowhere`);
    if (home !== file.name) imports.add(home);
    return full;
  };
  const visit = (scope: string, message: MessageType): void => {
    const name = `${scope}.${message.name!}`;
    for (const field of message.field ?? []) {
      if (field.typeName !== undefined && field.typeName !== '') field.typeName = resolve(name, field.typeName);
    }
    for (const nested of message.nestedType ?? []) visit(name, nested);
  };
  const scope = `.${file.package!}`;
  for (const message of file.messageType ?? []) visit(scope, message);
  for (const method of (file.service ?? []).flatMap(service => service.method ?? [])) {
    method.inputType = resolve(scope, method.inputType!);
    method.outputType = resolve(scope, method.outputType!);
  }
  file.dependency = [...imports];
}

/** From the innermost scope outwards, as the language has it. */
function search(scope: string, name: string, homes: ReadonlyMap<string, string>): string {
  for (let at = scope; at !== ''; at = at.slice(0, at.lastIndexOf('.'))) {
    if (homes.has(`${at}.${name}`)) return `${at}.${name}`;
  }
  return `.${name}`;
}
