// Command runner executes YAML runbooks that migrate live key-value data.
//
// One file a subcommand: flags in, a call of package runner, its answer out. Answers go
// to standard output, progress and logs to standard error. What a run does is in package
// runner, what a runbook may say in package schema, what it may do under steps.
package main

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"runbook/runner"
	"runbook/runner/journal"
	"runbook/schema"
	"runbook/steps/catalog"
)

// The exit codes.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitDoubt       = 3
	exitLocked      = 5
	exitInterrupted = 130
)

// defaultState is the state directory where none is given.
const defaultState = ".runner"

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(memoryPercent)
	}
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// memoryPercent is how much garbage there may be for what is in use. What a run keeps for its way
// back grows with its length, and beside the disk and the targets the collector costs little: so
// memory is worth more here than the usual 100 makes of it.
const memoryPercent = 75

// run is main with its surroundings passed in.
func run(args []string, in *os.File, out, errOut *os.File) int {
	a := &app{in: in, out: out, err: errOut}
	root := a.root()
	root.SetArgs(args)
	err := root.Execute()
	if err == nil {
		err = a.misled
	}
	if err == nil {
		return exitDone
	}
	return a.fail(err)
}

// app is one invocation: where it reads and writes, and the flags of every command.
type app struct {
	in, out, err *os.File

	state   string
	as      string
	output  string
	noColor bool
	reader  *lineReader
	colors  sync.Map             // whether a file takes colours, by *os.File: a run asks for every line
	shown   atomic.Pointer[view] // the one that is on the screen; nil: none
	misled  error                // of a --help about a command that is not there
}

// ended carries an exit code out of a command that has said all there is to say.
type ended struct{ code int }

func (e *ended) Error() string { return fmt.Sprintf("exit %d", e.code) }

// usage is a mistake on the command line.
func usage(hint, format string, args ...any) error {
	return &runner.UsageError{Err: fmt.Errorf(format, args...), Hint: hint}
}

// fail says what went wrong and gives the exit code for it.
func (a *app) fail(err error) int {
	var done *ended
	if errors.As(err, &done) {
		return done.code
	}
	code, hint := exitUsage, ""
	if u, ok := errors.AsType[*runner.UsageError](err); ok && !errors.Is(err, runner.ErrInterrupted) {
		a.findings(a.err, u.Findings)
		hint = u.Hint
		if len(u.Findings) > 0 && u.Err == nil {
			return exitUsage
		}
	} else if l, ok := errors.AsType[*journal.LockedError](err); ok {
		code = exitLocked
		hint = wayIn(l)
	} else if d, ok := errors.AsType[*runner.DriftError](err); ok {
		a.drifted(d)
		hint = "look at what has changed, then plan again: runner plan --live --out FILE RUNBOOK"
	} else if refused, ok := errors.AsType[*runner.AmendError](err); ok {
		for _, o := range refused.Offences {
			fmt.Fprintf(a.err, "%s %s\n", a.paint(a.err, runner.Caution, "refused:"), clean(o.String()))
		}
		hint = "take these differences out of the file and amend again, or resume without --amend: then the frozen plan is what runs"
	} else if errors.Is(err, runner.ErrInterrupted) {
		code = exitInterrupted
	} else if _, ok := errors.AsType[*journal.WriteError](err); ok {
		code = exitDoubt
		hint = "make room, or make the state directory writable again, then resume the run"
	}
	fmt.Fprintf(a.err, "%s %s\n", a.paint(a.err, runner.Bad, "error:"), clean(err.Error()))
	if hint != "" {
		fmt.Fprintf(a.err, "%s %s\n", a.paint(a.err, runner.Faint, "help:"), a.placed(clean(hint)))
	}
	return code
}

// wayIn is what can be done about a lock that somebody else has.
func wayIn(l *journal.LockedError) string {
	switch {
	case l.Holder.Run == "":
		return ""
	case l.Target != "" && l.Claimed:
		return fmt.Sprintf("on %s: runner resume %s goes on with it, runner abort %s ends it; if neither is possible: runner lock release %s RUNBOOK --reason TEXT",
			l.Holder.Host, l.Holder.Run, l.Holder.Run, shellWord(l.Name))
	case l.Target != "":
		return fmt.Sprintf("on %s: runner runs show %s", l.Holder.Host, l.Holder.Run)
	case l.Claimed:
		return fmt.Sprintf("runner resume %s goes on with it, runner abort %s ends it; if neither is possible: runner lock release %s --reason TEXT", l.Holder.Run, l.Holder.Run, shellWord(l.Name))
	}
	return "runner runs show " + l.Holder.Run
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "runner",
		Short: "Execute runbooks that migrate live key-value data",
		Long: `runner executes YAML runbooks that migrate live key-value data: it checks them, says
what they will do, does it with a journal that survives any crash, and undoes it.

Answers go to standard output, progress and logs to standard error.

Exit codes: 0 done; 1 the run failed, was rolled back, aborted or refused, or
` + "`runs verify`" + ` found damage; 2 nothing was done (usage, an unknown run, a runbook that
does not lint, a missing secret); 3 stopped in doubt, or the journal cannot be written;
4 paused; 5 another run holds the lock; 130 interrupted: ` + "`runner resume`" + ` goes on.

Environment: RUNNER_OPERATOR is the operator's name, where --as does not say it;
RUNNER_OPERATOR_TRUSTED=1 has names tell approvers apart, and not their uids;
NO_COLOR and TERM=dumb turn colours off.`,
		Example: `  runner new move-keys                         start a runbook
  runner lint move-keys.yaml                   find what is wrong with it
  runner plan move-keys.yaml -i slots=1-8      read what would be done
  runner exec --dry-run move-keys.yaml         look at the targets, change nothing
  runner exec move-keys.yaml                   do it
  runner resume last                           go on after a crash, a pause or a failure`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return unknownCommand(cmd, args[0])
		},
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return a.chooseForm(cmd) },
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.DisableSuggestions = true // ours name one, the nearest
	root.SetFlagErrorFunc(flagError)
	f := root.PersistentFlags()
	f.StringVar(&a.state, "state", defaultState, "state directory: journals and locks of runs")
	f.StringVar(&a.as, "as", "", "operator's name, for the record (RUNNER_OPERATOR, SUDO_USER, login name)")
	takeForms(root, f, []string{"text", "json"})
	f.BoolVar(&a.noColor, "no-color", false, "no colours")
	root.AddCommand(
		a.execCommand(), a.resumeCommand(), a.lintCommand(), a.planCommand(), a.diffCommand(), a.graphCommand(), a.runsCommand(),
		a.approveCommand(), a.rejectCommand(), a.pauseCommand(), a.abortCommand(), a.lockCommand(), a.stepsCommand(),
		a.schemaCommand(), a.fmtCommand(), a.newCommand(), a.versionCommand(), a.completionCommand(), a.guardianCommand(),
	)
	root.SetHelpCommand(a.helpCommand(root))
	help := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		if given := cmd.Flags().Args(); cmd.HasSubCommands() && len(given) > 0 { // runner runs report --help
			a.misled = unknownCommand(cmd, given[0])
			return
		}
		help(cmd, args)
	})
	_ = root.MarkPersistentFlagDirname("state")
	return root
}

// helpCommand is cobra's, with an unknown topic as an error.
func (a *app) helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Explain a command, with examples",
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return commandNames(root), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			cmd := root
			for _, name := range args {
				var next *cobra.Command
				for _, c := range cmd.Commands() {
					if c.Name() == name {
						next = c
					}
				}
				if next == nil {
					return unknownCommand(cmd, name)
				}
				cmd = next
			}
			cmd.InitDefaultHelpFlag()
			return cmd.Help()
		},
	}
}

func commandNames(cmd *cobra.Command) []string {
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() || c.Name() == "help" {
			names = append(names, c.Name())
		}
	}
	return names
}

func unknownCommand(cmd *cobra.Command, name string) error {
	near, ok := schema.Nearest(name, commandNames(cmd))
	hint := "the commands are " + strings.Join(commandNames(cmd), ", ")
	if ok {
		hint = "did you mean " + cmd.CommandPath() + " " + near + "?"
	} else if strings.HasSuffix(name, ".yaml") || strings.HasSuffix(name, ".yml") {
		hint = "runner exec " + name
	}
	return usage(hint, "%s has no command %q", cmd.CommandPath(), name)
}

// group is a command that only holds others.
func group(cmd *cobra.Command) *cobra.Command {
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return unknownCommand(cmd, args[0])
		}
		return usage("the commands are "+strings.Join(commandNames(cmd), ", "), "%s needs a command", cmd.CommandPath())
	}
	return cmd
}

// flagError says what is wrong with a flag, and names the nearest.
func flagError(cmd *cobra.Command, err error) error {
	text := err.Error()
	name, ok := strings.CutPrefix(text, "unknown flag: ")
	if !ok {
		return usage("runner help"+strings.TrimPrefix(cmd.CommandPath(), "runner"), "%s", text)
	}
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	hint := "runner help" + strings.TrimPrefix(cmd.CommandPath(), "runner")
	if near, ok := schema.Nearest(strings.TrimLeft(name, "-"), names); ok {
		hint = "did you mean --" + near + "?"
	}
	return usage(hint, "%s has no flag %s", cmd.CommandPath(), name)
}

// args checks the number of arguments, and says what they are.
func args(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usage(cmd.UseLine(), "%s needs %s", cmd.CommandPath(), what)
		case most >= 0 && len(args) > most:
			return usage(cmd.UseLine(), "%s takes %s, and got %q as well", cmd.CommandPath(), what, args[most])
		}
		return nil
	}
}

func (a *app) json() bool { return a.output == "json" }

// catalog is what runbooks may use. It is built when it is first asked for: `runner version` needs none.
func (a *app) catalog() *runner.Catalog { return runner.NewCatalog(catalog.Kinds(), catalog.Targets()) }

func (a *app) store() journal.Store { return journal.Store{Dir: a.state} }

// findings writes findings for people.
func (a *app) findings(w *os.File, findings []schema.Finding) {
	if len(findings) > 0 {
		_ = schema.Render(w, findings, source, a.color(w)) // a terminal that is gone reads no error either
	}
}

// source is a file's text for the excerpt under a finding.
func source(path string) []byte {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return text
}

// color tells whether to write colours: on a terminal that has them, unless told otherwise.
func (a *app) color(w *os.File) bool {
	if a.noColor || w == nil {
		return false
	}
	if yes, known := a.colors.Load(w); known {
		return yes.(bool)
	}
	yes := os.Getenv("TERM") != "dumb" && os.Getenv("NO_COLOR") == "" && terminal(w)
	a.colors.Store(w, yes)
	return yes
}

func terminal(f *os.File) bool { return f != nil && term.IsTerminal(int(f.Fd())) }

// paint colours a text by its tone.
func (a *app) paint(w *os.File, tone runner.Tone, text string) string {
	code := tones[tone]
	if code == "" || !a.color(w) {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

var tones = [...]string{runner.Plain: "", runner.Good: "32", runner.Change: "36", runner.Faint: "2", runner.Caution: "33", runner.Bad: "31;1"}

// clean takes control characters out of what comes from a target or a file: it must not drive the terminal.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '\ufffd'
		}
		return r
	}, text)
}

// command is a command of the runner about a run, as hints have it.
var command = regexp.MustCompile(`\brunner (?:resume|approve|reject|pause|abort|runs [a-z]+)(?: \d{8}-\d{6}-[0-9a-z]+)?`)

// placed puts the state directory into the commands of a hint, where it is not the usual
// one, so that they work as they stand.
func (a *app) placed(hint string) string {
	if a.state == defaultState {
		return hint
	}
	return command.ReplaceAllString(hint, "${0} --state "+strings.ReplaceAll(shellWord(a.state), "$", "$$"))
}

// shellWord is a word as a shell takes it.
func shellWord(word string) string {
	if plainWord.MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

var plainWord = regexp.MustCompile(`^[\w@%+=:,./-]+$`)

// lines writes lines of a report, in one write.
func (a *app) lines(w *os.File, lines []runner.Line) {
	if len(lines) == 0 {
		return
	}
	var b strings.Builder
	for _, l := range lines {
		text := clean(l.Text)
		if hint := strings.TrimLeft(text, " "); strings.HasPrefix(hint, "help: ") || strings.HasPrefix(hint, "to go on: ") {
			text = a.placed(text)
		}
		b.WriteString(a.paint(w, l.Tone, text))
		b.WriteByte('\n')
	}
	_, _ = w.WriteString(b.String()) // a reader that is gone is no reason to end a run
}
