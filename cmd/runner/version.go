package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Say which runner this is",
		Example: "  runner version\n  runner version --output json",
		Args:    args(0, 0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			b := version()
			if a.json() {
				return a.answer(b)
			}
			fmt.Fprintf(a.out, "runner %s\n", b.Version)
			if b.Revision != "" {
				fmt.Fprintf(a.out, "revision %s\n", b.Revision)
			}
			fmt.Fprintf(a.out, "language %d\n%s\n", b.Language, b.Go)
			return nil
		},
	}
}

// answer writes one value as JSON.
func (a *app) answer(v any) error {
	e := json.NewEncoder(a.out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	return nil
}
