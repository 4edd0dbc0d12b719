package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// helperEnv makes the test binary a helper process: some things can only be shown with a second process.
const helperEnv = "JOURNAL_TEST_HELPER"

func TestMain(m *testing.M) {
	switch os.Getenv(helperEnv) {
	case "":
		goleak.VerifyTestMain(m)
	case "lock": // lock the file, say how that went, hold it until stdin ends
		held, err := Lock(os.Args[1], Holder{Operator: "ana", Host: "db7", PID: os.Getpid(), Run: "r1", Since: epoch})
		if busy, ok := errors.AsType[*LockedError](err); ok {
			json.NewEncoder(os.Stdout).Encode(busy.Holder)
			os.Exit(5)
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("held")
		io.Copy(io.Discard, os.Stdin)
		held.Release()
	case "child": // live until stdin ends
		fmt.Println("alive")
		io.Copy(io.Discard, os.Stdin)
	case "runner": // start a child that inherits the file, say that it lives, and stay
		children, err := OpenChildren(&Run{ID: "r1", Dir: os.Args[1]})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), helperEnv+"=child")
		child.Stdin, child.Stdout = os.Stdin, os.Stdout
		child.ExtraFiles = []*os.File{children.File()}
		if err := child.Run(); err != nil {
			os.Exit(1)
		}
	}
}

// helper starts a helper process, which inherits a file if one is given, and gives its first line of output. Closing
// stdin ends it.
func helper(t *testing.T, role string, inherit *os.File, args ...string) (cmd *exec.Cmd, stdin io.Closer, firstLine string) {
	t.Helper()
	cmd = exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), helperEnv+"="+role)
	if inherit != nil {
		cmd.ExtraFiles = []*os.File{inherit}
	}
	in, err := cmd.StdinPipe()
	check(t, err)
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	line := make([]byte, 0, 256)
	for b := make([]byte, 1); len(line) == 0 || line[len(line)-1] != '\n'; {
		if _, err := out.Read(b); err != nil {
			break
		}
		line = append(line, b[0])
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	return cmd, in, string(line)
}

var epoch = time.Date(2026, 11, 22, 11, 14, 50, 500_000_000, time.UTC)

// ticks is a clock that moves on by a millisecond with every look.
func ticks() func() time.Time {
	now := epoch
	return func() time.Time {
		now = now.Add(time.Millisecond)
		return now
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func withCause(t testing.TB) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(t.Context())
	t.Cleanup(func() { cancel(nil) })
	return ctx, cancel
}
