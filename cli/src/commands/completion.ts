// `meshpulse completion SHELL`: a script that completes commands and options.

import { Argument, type Command } from 'commander';
import type { Io } from '../io.js';

interface Known {
  readonly name: string;
  readonly description: string;
  readonly options: readonly {
    readonly long: string;
    readonly description: string;
    readonly choices: readonly string[];
  }[];
  readonly choices: readonly string[];
}

const SCRIPTS: Readonly<Record<string, (commands: readonly Known[]) => string>> = { bash, zsh, fish };

export function addCompletion(program: Command, io: Io): void {
  program
    .command('completion')
    .description('print a completion script: source <(meshpulse completion bash)')
    .addArgument(new Argument('<shell>', 'shell to complete in').choices(Object.keys(SCRIPTS)))
    .action((shell: string) => io.out(SCRIPTS[shell]!(program.commands.map(known))));
}

function known(command: Command): Known {
  return {
    name: command.name(),
    description: command.description(),
    options: command.options.map(option => ({
      long: option.long ?? '',
      description: option.description,
      choices: option.argChoices ?? [],
    })),
    choices: [
      ...command.registeredArguments.flatMap(argument => argument.argChoices ?? []),
      ...command.commands.map(one => one.name()),
    ],
  };
}

const words = ({ options, choices }: Known): string => [...options.map(option => option.long), ...choices].join(' ');

function bash(commands: readonly Known[]): string {
  const cases = commands.map(command => `    ${command.name}) words="${words(command)}" ;;`);
  return `# meshpulse completion for bash: source <(meshpulse completion bash)
_meshpulse() {
  local word="\${COMP_WORDS[COMP_CWORD]}" words
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "${commands.map(command => command.name).join(' ')}" -- "$word"))
    return
  fi
  case "\${COMP_WORDS[COMP_CWORD-1]}" in
    -o|--output) words="table json" ;;
    *) case "\${COMP_WORDS[1]}" in
${cases.map(one => `  ${one}`).join('\n')}
      *) words="" ;;
    esac ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}
complete -o default -F _meshpulse meshpulse
`;
}

function zsh(commands: readonly Known[]): string {
  const names = commands.map(({ name, description }) => `    ${quoted(`${name}:${description}`)}`);
  const cases = commands.map(command => {
    const specs = command.options.map(({ long, description, choices }) => {
      const value = choices.length > 0 ? `:value:(${choices.join(' ')})` : '';
      return ` ${quoted(`${long}[${description.replace(/[[\]:]/g, ' ')}]${value}`)}`;
    });
    const choices = command.choices.length > 0 ? ` ${quoted(`1:argument:(${command.choices.join(' ')})`)}` : '';
    return `    ${command.name}) _arguments${specs.join('')}${choices} ;;`;
  });
  return `#compdef meshpulse
# meshpulse completion for zsh: source <(meshpulse completion zsh)
_meshpulse() {
  local -a commands
  commands=(
${names.join('\n')}
  )
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  local command="$words[2]"
  shift words
  (( CURRENT-- ))
  case "$command" in
${cases.join('\n')}
  esac
}
compdef _meshpulse meshpulse
`;
}

function fish(commands: readonly Known[]): string {
  const lines = commands.flatMap(({ name, description, options, choices }) => [
    `complete -c meshpulse -n __fish_use_subcommand -f -a ${name} -d ${quoted(description)}`,
    ...options.map(option => {
      const value = option.choices.length > 0 ? ` -x -a ${quoted(option.choices.join(' '))}` : '';
      return `complete -c meshpulse -n '__fish_seen_subcommand_from ${name}' -l ${option.long.slice(2)}${value} -d ${quoted(option.description)}`;
    }),
    ...choices.map(choice => `complete -c meshpulse -n '__fish_seen_subcommand_from ${name}' -f -a ${choice}`),
  ]);
  return `# meshpulse completion for fish: meshpulse completion fish | source\n${lines.join('\n')}\n`;
}

/** In single quotes, for a shell. */
const quoted = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;
