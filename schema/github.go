package schema

import (
	"bufio"
	"fmt"
	"io"
	"path/filepath"
	"strings"
)

// WriteGitHub writes findings as workflow commands of GitHub Actions, one a line, which
// show them beside the lines of a pull request. Paths must be relative to the root of the
// repository. Columns are given where a finding lies within one line, as GitHub wants it; like
// everywhere the end is exclusive.
func WriteGitHub(w io.Writer, findings []Finding) error {
	b := bufio.NewWriter(w)
	for _, f := range findings {
		command := string(f.Severity)
		if f.Severity == Note {
			command = "notice"
		}
		fmt.Fprintf(b, "::%s ", command)
		if f.Line > 0 {
			fmt.Fprintf(b, "file=%s,line=%d,endLine=%d,", githubProperty(filepath.ToSlash(f.Path)), f.Line, max(f.Line, f.EndLine))
			if f.EndLine <= f.Line {
				fmt.Fprintf(b, "col=%d,endColumn=%d,", f.Column, max(f.Column, f.EndColumn))
			}
		}
		fmt.Fprintf(b, "title=%s::%s\n", githubProperty(f.Rule), githubText(f.told()))
	}
	return b.Flush() // bufio keeps the first error
}

// githubText escapes what ends a command.
func githubText(text string) string {
	return strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A").Replace(text)
}

// githubProperty escapes what ends a property as well.
func githubProperty(text string) string {
	return strings.NewReplacer(":", "%3A", ",", "%2C").Replace(githubText(text))
}
