package host

import "testing"

func TestMarked(t *testing.T) {
	tests := []struct {
		name, text, line, output string
	}{
		{"plain", "!pid 7\nhello\n", "!pid 7", "hello\n"},
		{"a login that talks", "bash: warning: setlocale\n\n!x\n!pid 7\nhello\n", "!pid 7", "hello\n"},
		{"the mark alone", "!\n", "!", ""},
		{"none", "sh: head: not found\nbye", "", "sh: head: not found\nbye"},
		{"a long line that looks like one", "!pid " + string(make([]byte, 100)) + "!\n!absent\n", "!absent", ""},
		{"a mark of its own after the script's", "!\n!pid 9\n", "!", "!pid 9\n"},
	}
	for _, tt := range tests {
		for _, size := range []int{1, 3, 4096} { // however it arrives
			w := &marked{to: &capture{limit: 4096}, begun: make(chan struct{})}
			for rest := tt.text; rest != ""; {
				n := min(size, len(rest))
				_, _ = w.Write([]byte(rest[:n]))
				rest = rest[n:]
			}
			out := w.output().Text
			if string(w.line) != tt.line || out != tt.output || w.seen != (tt.line != "") {
				t.Errorf("%s in pieces of %d: line %q, output %q, seen %v", tt.name, size, w.line, out, w.seen)
			}
		}
	}
}
