//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// goTask is the module of the peer that is built from source.
const goTask = "github.com/go-task/task/v3/cmd/task@v3.52.0"

// peer is another program that runs steps written down in YAML.
type peer struct {
	name   string
	rounds int
	book   func(dir string) (string, error) // dir is for what it writes
	argv   func(book string) []string
}

// comparePeers runs the same steps with the runner and with its peers. None of the peers keeps a journal, syncs a
// file or can go on after a crash: they do less in their time.
func (b *bench) comparePeers() error {
	task, taskErr := b.buildTask()
	ansible, ansibleErr := exec.LookPath("ansible-playbook")
	for _, work := range []string{"write a small file", "run /bin/true"} {
		list := []peer{{name: "runner", rounds: b.rounds, argv: b.exec, book: func(dir string) (string, error) {
			if work == "run /bin/true" {
				return b.execBook(b.each, "write")
			}
			return b.fileBook(b.each, dir)
		}}}
		if taskErr == nil {
			list = append(list, peer{name: "go-task", rounds: b.rounds, book: func(dir string) (string, error) { return b.taskfile(work, dir) },
				argv: func(book string) []string { return []string{task, "--taskfile", book, "--silent"} }})
		}
		if ansibleErr == nil {
			list = append(list, peer{name: "ansible-core", rounds: b.long, book: func(dir string) (string, error) { return b.playbook(work, dir) },
				argv: func(book string) []string { return []string{ansible, "-i", "localhost,", "-c", "local", book} }})
		}
		fmt.Printf("\n%d steps, each to %s\n", b.each, work)
		var own cost
		for _, p := range list {
			c, err := medians(p.rounds, func() ([]string, error) {
				dir, err := b.fresh("work")
				if err != nil {
					return nil, err
				}
				book, err := p.book(dir)
				return p.argv(book), err
			})
			if err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			if p.name == "runner" {
				own = c
			}
			fmt.Printf("  %-13s wall %8s  CPU %8s  memory %7s   wall %6.2fx, CPU %6.2fx of the runner (%d runs)\n",
				p.name, short3(c.wall), short3(c.cpu), size(c.rss), ratio(c.wall, own.wall), ratio(c.cpu, own.cpu), p.rounds)
		}
	}
	if taskErr != nil {
		fmt.Printf("\ngo-task cannot be had: %v\n", taskErr)
	}
	if ansibleErr != nil {
		fmt.Printf("\nansible-core cannot be had: %v; apt-get install ansible-core installs it\n", ansibleErr)
	}
	return nil
}

// buildTask builds go-task once.
func (b *bench) buildTask() (string, error) {
	dir, err := b.fresh("task")
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "install", goTask)
	cmd.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=-mod=mod")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		return "", errors.New(lines[len(lines)-1])
	}
	return filepath.Join(dir, "task"), nil
}

// taskfile has a task of so many commands. Its shell is a part of go-task: echo into a file forks nothing.
func (b *bench) taskfile(work, dir string) (string, error) {
	line := "      - echo v > " + dir + "/%d\n"
	if work == "run /bin/true" {
		line = "      - /bin/true # %d\n"
	}
	return b.lines("Taskfile.yml", "version: '3'\ntasks:\n  default:\n    cmds:\n", line)
}

func (b *bench) playbook(work, dir string) (string, error) {
	line := "    - copy: {dest: " + dir + "/%d, content: v}\n"
	if work == "run /bin/true" {
		line = "    - {command: /bin/true, name: s%d}\n"
	}
	return b.lines("playbook.yml", "- hosts: all\n  gather_facts: false\n  tasks:\n", line)
}

// lines writes a file of a head and a line for each step.
func (b *bench) lines(name, head, line string) (string, error) {
	path := filepath.Join(b.dir, name)
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	w := bufio.NewWriter(f)
	fmt.Fprint(w, head)
	for i := range b.each {
		fmt.Fprintf(w, line, i)
	}
	if err := w.Flush(); err != nil {
		return "", err
	}
	return path, f.Close()
}
