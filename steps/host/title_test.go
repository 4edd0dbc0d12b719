package host

import "testing"

func TestTitle(t *testing.T) {
	t.Parallel()
	for cmdline, want := range map[string]string{
		"redis-server *:6379" + "          \x00": "redis-server *:6379",
		"redis-server *:6379\x00\x00\x00":        "redis-server *:6379",
		"/bin/sh\x00-c\x00sleep 1\x00":           "/bin/sh -c sleep 1",
		"":                                       "",
	} {
		if got := title(cmdline); got != want {
			t.Errorf("%q gives %q, want %q", cmdline, got, want)
		}
	}
}
