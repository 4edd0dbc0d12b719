package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"runbook/runner"
	"runbook/steps/catalog"
)

// guardianCommand is the other end of startGuardian: not for people, so it is hidden.
func (a *app) guardianCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "guardian",
		Short:  "Bring a step to a safe end whose runner dies (started by the runner itself)",
		Hidden: true,
		Args:   args(0, 0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			// Whoever ends the runner by a signal to its group or its terminal does not mean the guardian.
			signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
			err := runner.ServeGuardian(context.Background(), runner.GuardianConfig{
				Catalog: runner.NewCatalog(catalog.Kinds(), catalog.Targets()),
				Log:     slog.New(slog.NewTextHandler(a.err, nil)).With("guardian", os.Getpid()), EndRunner: endRunner,
			}, a.in, a.out)
			if err != nil {
				fmt.Fprintln(a.err, err)
				return &ended{exitDoubt}
			}
			return nil
		},
	}
}

// endRunner kills the process that started this one. It is the parent until it dies, so
// the pid cannot have come to mean another process.
func endRunner(pid int) error {
	if os.Getppid() != pid {
		return nil
	}
	return syscall.Kill(pid, syscall.SIGKILL)
}

// startGuardian starts this binary once more, in a session of its own: neither a closed
// terminal nor a signal to the runner's group reaches it.
func startGuardian(spec runner.GuardianSpec) (runner.GuardianPipe, error) {
	// The file may have been replaced since this process was started; what runs is what must guard.
	cmd := exec.Command("/proc/self/exe", "guardian")
	if _, err := os.Stat(cmd.Path); err != nil {
		if cmd.Path, err = os.Executable(); err != nil {
			return nil, err
		}
	}
	cmd.Args[0] = os.Args[0]
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if spec.Inherit != nil {
		cmd.ExtraFiles = []*os.File{spec.Inherit}
	}
	if spec.Log != "" {
		f, err := os.OpenFile(spec.Log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		cmd.Stderr = f
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &guardianProcess{cmd: cmd, log: spec.Log, WriteCloser: in, Reader: out}, nil
}

type guardianProcess struct {
	cmd *exec.Cmd
	log string
	io.WriteCloser
	io.Reader
}

func (p *guardianProcess) Wait() error {
	err := p.cmd.Wait()
	if f, statErr := os.Stat(p.log); statErr == nil && f.Size() == 0 {
		_ = os.Remove(p.log) // one that was never needed has nothing to tell
	}
	if _, exited := errors.AsType[*exec.ExitError](err); exited {
		return fmt.Errorf("the guardian: %w", err)
	}
	return err
}
