package host

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"runbook/steps"
)

// The largest old file that is journaled for the undo, and the largest that is copied to a backup.
const (
	captureLimit = 1 << 20
	backupLimit  = 64 << 20
)

type fileIn struct {
	Path     string         `yaml:"path,required" doc:"Absolute path of the file; its directory must be there."`
	Content  *string        `yaml:"content" doc:"What the file holds, as it is. Either this or template."`
	Template string         `yaml:"template" doc:"What the file holds, with {{name}} replaced by the value of that name; a name without a value is an error."`
	Values   map[string]any `yaml:"values" doc:"Values for the template, by name; lists and maps become JSON."`
	Mode     string         `yaml:"mode" pattern:"^0?[0-7]{3}$" doc:"Permission bits, quoted, such as \"0640\"; without it those of the old file, or 0644."`
	Backup   string         `yaml:"backup" doc:"Absolute path that the old file is copied to first; undo takes it from there, and its content is not journaled."`
}

type fileOut struct {
	Changed bool   `yaml:"changed,act" doc:"The file was not like this before."`
	SHA256  string `yaml:"sha256" doc:"SHA-256 of the content, in hexadecimal."`
}

// fileBefore is the old file.
type fileBefore struct {
	Existed bool        `json:"existed"`
	Mode    fs.FileMode `json:"mode,omitempty"`
	SHA256  string      `json:"sha256,omitempty"`
	Content []byte      `json:"content,omitempty"` // base64 in the journal; none where there is a backup
	Backup  string      `json:"backup,omitempty"`
}

func file() *steps.Kind[fileIn, fileOut] {
	return &steps.Kind[fileIn, fileOut]{
		Name: "host.file",
		Doc: "Makes a file hold exactly this content: written to a temporary file beside it, synced to disk and renamed, so that a crash leaves the old or the new file. " +
			"The owner is kept; a symbolic link is followed. Nothing is written when content and mode are there already.",
		Effect: steps.Write, On: []string{KindName}, TargetOptional: true, Idempotent: true,
		Example: `{id: config, uses: host.file, with: {path: /tmp/runner-example.conf, template: "port {{port}}\n", values: {port: 9221}, mode: "0600"}}`,
		Pitfalls: []string{
			"An old file without backup is journaled for the undo: one that holds a secret needs a backup.",
			"An old file over 1 MiB is refused without a backup.",
			"Undo leaves a file alone that somebody changed since.",
			"A mode without quotes and with a leading zero is another number in YAML.",
		},
		Valid: validFile,
		Check: func(ctx context.Context, v steps.View, in fileIn) error {
			m, err := Of(ctx, v, "")
			if err != nil {
				return err
			}
			d, err := m.Stat(ctx, path.Dir(in.Path))
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return steps.Precondition("directory %s on %s is not there", path.Dir(in.Path), m)
			case err != nil:
				return err
			case !d.Mode.IsDir() && d.Mode&fs.ModeSymlink == 0:
				return steps.Precondition("%s on %s is no directory", path.Dir(in.Path), m)
			}
			_, err = readOld(ctx, m, in)
			return err
		},
		Plan: func(ctx context.Context, v *steps.View, in fileIn) (steps.Change, error) {
			content, err := in.render()
			if err != nil {
				return steps.Change{}, err
			}
			line := steps.Line{Target: lineTarget(v), Command: "write " + in.Path, To: describe(content)}
			if in.Mode != "" {
				line.Command += " (mode " + in.Mode + ")"
			}
			if in.Backup != "" {
				line.Command += ", old file to " + in.Backup
			}
			if v == nil {
				return steps.Change{Lines: []steps.Line{line}}, nil
			}
			m, err := Of(ctx, *v, "")
			if err != nil {
				return steps.Change{}, err
			}
			old, err := readOld(ctx, m, in)
			if err != nil {
				return steps.Change{}, err
			}
			line.From = "absent"
			if old.Existed {
				line.From = fmt.Sprintf("mode %04o, sha256 %.12s", old.Mode, old.SHA256)
			}
			return steps.Change{Lines: []steps.Line{line}, Before: old}, nil
		},
		Probe: func(ctx context.Context, v steps.View, in fileIn) (steps.State, fileOut, error) {
			content, err := in.render()
			if err != nil {
				return steps.Unclear, fileOut{}, err
			}
			m, err := Of(ctx, v, "")
			if err != nil {
				return steps.Unclear, fileOut{}, err
			}
			state, err := compareFile(ctx, m, in, content)
			return state, fileOut{SHA256: sum(content)}, err
		},
		Apply: func(ctx context.Context, s steps.Session, in fileIn) (fileOut, error) {
			content, err := in.render()
			if err != nil {
				return fileOut{}, err
			}
			m, err := ForSession(ctx, s, "")
			if err != nil {
				return fileOut{}, err
			}
			out := fileOut{SHA256: sum(content)}
			state, err := compareFile(ctx, m, in, content)
			if err != nil || state == steps.Done {
				return out, err
			}
			if in.Backup != "" && state == steps.Untouched {
				if err := backUp(ctx, m, in); err != nil {
					return out, err
				}
			}
			if err := m.WriteFile(ctx, in.Path, content, in.mode()); err != nil {
				return out, err
			}
			out.Changed = true
			return out, nil
		},
		Undo:     undoFile,
		UndoPlan: func(in fileIn) string { return "restore the old " + in.Path + ", or remove it if there was none" },
	}
}

func validFile(in fileIn, unknown func(string) bool) []steps.Problem {
	p := absolute("path", in.Path, unknown)
	if in.Backup != "" {
		p = append(p, absolute("backup", in.Backup, unknown)...)
		if in.Backup == in.Path {
			p = append(p, steps.Problem{Input: "backup", Message: "the backup would be the file itself"})
		}
	}
	if unknown("content") || unknown("template") || unknown("values") {
		return p
	}
	switch {
	case in.Content == nil && in.Template == "":
		return append(p, steps.Problem{Input: "content", Message: "a file needs content or template"})
	case in.Content != nil && in.Template != "":
		return append(p, steps.Problem{Input: "template", Message: "a file has content or template, not both"})
	case in.Content != nil && len(in.Values) > 0:
		return append(p, steps.Problem{Input: "values", Message: "values are for a template", Suggestion: "template instead of content"})
	}
	if _, err := in.render(); err != nil {
		p = append(p, steps.Problem{Input: "template", Message: err.Error()})
	}
	for name := range in.Values {
		used := slices.ContainsFunc(placeholder.FindAllStringSubmatch(in.Template, -1), func(m []string) bool { return m[1] == name })
		if !used {
			p = append(p, steps.Problem{Input: "values", Message: fmt.Sprintf("the template does not use {{%s}}", name)})
		}
	}
	return p
}

var placeholder = regexp.MustCompile(`\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}`)

// render gives the content wanted.
func (in fileIn) render() ([]byte, error) {
	if in.Content != nil {
		return []byte(*in.Content), nil
	}
	var missing []string
	rest := placeholder.ReplaceAllString(in.Template, "")
	if i := strings.Index(rest, "{{"); i >= 0 {
		return nil, steps.Errorf("template", "template of %s: %.20q is no {{name}}", in.Path, rest[i:])
	}
	text := placeholder.ReplaceAllStringFunc(in.Template, func(m string) string {
		name := placeholder.FindStringSubmatch(m)[1]
		v, ok := in.Values[name]
		if !ok || v == nil {
			missing = append(missing, name)
			return ""
		}
		return valueText(v)
	})
	if len(missing) > 0 {
		return nil, steps.Errorf("template", "template of %s: no value for %s", in.Path, strings.Join(missing, ", "))
	}
	return []byte(text), nil
}

func valueText(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case fmt.Stringer:
		return v.String()
	case []any, map[string]any:
		b, err := json.Marshal(v)
		if err == nil {
			return string(b)
		}
	}
	return fmt.Sprint(v)
}

func (in fileIn) mode() fs.FileMode {
	n, _ := strconv.ParseUint(in.Mode, 8, 32) // the pattern admits nothing else; empty: 0
	return fs.FileMode(n)
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

func describe(content []byte) string {
	return fmt.Sprintf("%d bytes, sha256 %.12s", len(content), sum(content))
}

// compareFile tells whether content and mode are there. Renaming makes them appear at once: what differs was not touched.
func compareFile(ctx context.Context, m Machine, in fileIn, content []byte) (steps.State, error) {
	got, mode, err := readWhole(ctx, m, in.Path, int64(len(content)))
	var e *steps.Error
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.As(err, &e) && e.Kind == "too-large":
		return steps.Untouched, nil
	case err != nil:
		return steps.Unclear, err
	case !bytes.Equal(got, content):
		return steps.Untouched, nil
	case in.Mode != "" && mode != in.mode():
		return steps.Partial, nil
	}
	return steps.Done, nil
}

// readWhole reads a file and its mode, through a link.
func readWhole(ctx context.Context, m Machine, name string, limit int64) ([]byte, fs.FileMode, error) {
	f, err := m.Stat(ctx, name)
	if err != nil {
		return nil, 0, err
	}
	if f.Mode&fs.ModeSymlink != 0 {
		if name, err = m.RealPath(ctx, name); err != nil {
			return nil, 0, err
		}
		if f, err = m.Stat(ctx, name); err != nil {
			return nil, 0, err
		}
	}
	if !f.Mode.IsRegular() {
		return nil, 0, steps.Errorf("conflict", "%s on %s is no regular file", name, m)
	}
	b, err := m.ReadFile(ctx, name, limit)
	return b, f.Mode.Perm(), err
}

// readOld captures the old file for the undo.
func readOld(ctx context.Context, m Machine, in fileIn) (fileBefore, error) {
	limit := int64(captureLimit)
	if in.Backup != "" {
		limit = backupLimit
	}
	content, mode, err := readWhole(ctx, m, in.Path, limit)
	var e *steps.Error
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fileBefore{}, nil
	case errors.As(err, &e) && e.Kind == "too-large":
		e = steps.Precondition("the old %s on %s is larger than %s, too large to be kept for the undo", in.Path, m, bytesText(limit))
		if in.Backup == "" {
			e = e.WithHint("say with backup where the old file is to be kept")
		}
		return fileBefore{}, e
	case err != nil:
		return fileBefore{}, err
	}
	old := fileBefore{Existed: true, Mode: mode, SHA256: sum(content), Content: content}
	if in.Backup == "" {
		return old, nil
	}
	old.Content, old.Backup = nil, in.Backup
	kept, _, err := readWhole(ctx, m, in.Backup, backupLimit)
	if errors.Is(err, fs.ErrNotExist) || err == nil && (sum(kept) == old.SHA256) {
		return old, nil
	}
	if err != nil {
		return old, err
	}
	return old, steps.Precondition("backup %s on %s is there already and holds something else", in.Backup, m).
		WithHint("move it away, or name another backup: the first backup is the one worth keeping")
}

func backUp(ctx context.Context, m Machine, in fileIn) error {
	content, mode, err := readWhole(ctx, m, in.Path, backupLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return m.WriteFile(ctx, in.Backup, content, mode)
}

func undoFile(ctx context.Context, s steps.Session, in fileIn, _ *fileOut) error {
	var old fileBefore
	known, err := s.Before(&old)
	if err != nil {
		return err
	}
	if !known {
		return steps.Errorf("undo", "restore %s: what it was before is not known", in.Path)
	}
	m, err := ForSession(ctx, s, "")
	if err != nil {
		return err
	}
	content, err := in.render()
	if err != nil {
		return err
	}
	now, mode, err := readWhole(ctx, m, in.Path, backupLimit)
	absent := errors.Is(err, fs.ErrNotExist)
	switch {
	case absent && !old.Existed:
		return nil
	case err != nil && !absent:
		return err
	case !absent && old.Existed && sum(now) == old.SHA256 && mode == old.Mode:
		return nil
	case !absent && !bytes.Equal(now, content) && (!old.Existed || sum(now) != old.SHA256):
		return steps.Errorf("conflict", "restore %s on %s: somebody changed it since, it is left as it is", in.Path, m)
	case absent:
		return steps.Errorf("conflict", "restore %s on %s: somebody removed it since, it is left as it is", in.Path, m)
	}
	if !old.Existed {
		return m.Remove(ctx, in.Path)
	}
	was := old.Content
	if old.Backup != "" {
		if was, _, err = readWhole(ctx, m, old.Backup, backupLimit); err != nil {
			return fmt.Errorf("restore %s on %s: %w", in.Path, m, err)
		}
	}
	if sum(was) != old.SHA256 {
		return steps.Errorf("undo", "restore %s on %s: what was kept of it has changed", in.Path, m)
	}
	return m.WriteFile(ctx, in.Path, was, old.Mode)
}
