package host

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestTempBeside(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "config")
	leave := func() *os.File {
		t.Helper()
		f, err := tempBeside(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString("half of it, and longer than what follows"); err != nil {
			t.Fatal(err)
		}
		return f
	}
	leave().Close() // as a killed runner does
	busy := leave()
	beside := leave() // while another one writes
	if busy.Name() == beside.Name() {
		t.Errorf("two writers have one file, %s", busy.Name())
	}
	busy.Close()
	beside.Close()
	if err := os.Remove(beside.Name()); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, ".config.runner"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := (&local{}).WriteFile(t.Context(), path, []byte("new\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	var names []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if !slices.Equal(names, []string{"config"}) {
		t.Errorf("the folder holds %v", names)
	}
	if b, err := os.ReadFile(path); string(b) != "new\n" {
		t.Errorf("%q, %v", b, err)
	}
	// A link that somebody put there is not followed.
	victim := filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, []byte("mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, filepath.Join(dir, ".config.runner")); err != nil {
		t.Fatal(err)
	}
	if err := (&local{}).WriteFile(t.Context(), path, []byte("newer\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(victim); string(b) != "mine\n" {
		t.Errorf("%q, %v: a link was followed", b, err)
	}
}
