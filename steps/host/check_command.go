package host

import (
	"context"
	"errors"
	"io/fs"

	"runbook/steps"
)

type checkCommandIn struct {
	Name        string   `yaml:"name,required" doc:"Command, looked for in PATH; with a slash it is a path."`
	MinVersion  string   `yaml:"min_version" pattern:"^[0-9]+([.][0-9]+)*$" doc:"Lowest version wanted, such as 3.1.0; compared number by number."`
	VersionArgs []string `yaml:"version_args" doc:"What makes it tell its version; [--version] where min_version is given, otherwise it is not run."`
	Optional    bool     `yaml:"optional" default:"false" doc:"Absent or too old is no failure: the outputs tell."`
}

type checkCommandOut struct {
	Path    string `yaml:"path" doc:"Where it was found; empty where it is absent."`
	Version string `yaml:"version" doc:"First number with dots that it printed; empty where it was not asked or told none."`
	Present bool   `yaml:"present" doc:"It was found."`
}

func checkCommand() *steps.Kind[checkCommandIn, checkCommandOut] {
	return &steps.Kind[checkCommandIn, checkCommandOut]{
		Name: "host.check-command",
		Doc: "Finds a command and, where a version is wanted, runs it with --version (at most 5 s). " +
			"It fails when the command is absent or older than min_version, unless optional.",
		Effect: steps.Read, On: []string{KindName}, TargetOptional: true,
		Example: `{id: rsync_there, uses: host.check-command, with: {name: sh}}`,
		Pitfalls: []string{
			"The PATH over SSH is that of a login without terminal and often lacks /usr/local/bin and /usr/sbin.",
			"Not every command knows --version, and a server may start instead: name what it knows in version_args.",
			"Pika calls rsync only when a full sync begins, and fails then if it is not installed.",
		},
		Read: func(ctx context.Context, v steps.View, in checkCommandIn) (checkCommandOut, error) {
			m, err := Of(ctx, v, "")
			if err != nil {
				return checkCommandOut{}, err
			}
			args := in.VersionArgs
			if len(args) == 0 && in.MinVersion != "" {
				args = []string{"--version"}
			}
			t, err := m.Look(ctx, in.Name, args...)
			if errors.Is(err, fs.ErrNotExist) {
				if in.Optional {
					return checkCommandOut{}, nil
				}
				return checkCommandOut{}, steps.Errorf("not-found", "command %s on %s: not found", in.Name, m).
					WithHint("install it there, or give its path")
			}
			if err != nil {
				return checkCommandOut{}, err
			}
			out := checkCommandOut{Path: t.Path, Version: t.Version, Present: true}
			switch {
			case in.MinVersion == "" || in.Optional:
			case t.Version == "":
				return out, steps.Errorf("version", "command %s on %s told no version when run with %v", t.Path, m, args).
					WithHint("name the arguments that make it tell in version_args")
			case VersionLess(t.Version, in.MinVersion):
				return out, steps.Errorf("version", "command %s on %s is version %s, and %s or later is needed", t.Path, m, t.Version, in.MinVersion)
			}
			return out, nil
		},
	}
}
