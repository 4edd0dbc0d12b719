package pika

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	simulate "runbook/internal/simulate/pika"
)

// TestMain is also a server: started as "BINARY -c FILE" this program is a simulated Pika with that configuration, and with
// the ports beside its own, so that starting and stopping one can be tried where there is no real one.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) == 2 && os.Args[1] == "-v":
		fmt.Println("pika_version: 3.4.0")
	case len(os.Args) == 3 && os.Args[1] == "-c":
		if err := serve(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(134)
		}
	default:
		goleak.VerifyTestMain(m)
	}
}

func serve(file string) error {
	config, err := readConf(file)
	if err != nil {
		return err
	}
	port, err := strconv.Atoi(config["port"])
	if err != nil {
		return err
	}
	for _, beside := range []int{1000, 2000} {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port+beside)))
		if err != nil {
			return fmt.Errorf("bind port %d failed: %w", port+beside, err)
		}
		defer func() { _ = l.Close() }()
		go greet(l)
	}
	slots, err := strconv.Atoi(config["default-slot-num"])
	if err != nil {
		return err
	}
	s, err := simulate.Start(simulate.Options{
		Addr: "127.0.0.1:" + config["port"], Mode: config["instance-mode"], SlotNum: slots, Password: config["requirepass"], PID: os.Getpid(),
		Config: map[string]string{"db-path": config["db-path"]},
	})
	if err != nil {
		return err
	}
	defer s.Close()
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM, syscall.SIGINT)
	<-told
	return nil
}

// greet does as an rsync daemon until the process ends.
func greet(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = c.Write([]byte("@RSYNCD: 31.0\n"))
		_ = c.Close()
	}
}

func readConf(file string) (map[string]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	config := map[string]string{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), ":"); ok {
			config[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	return config, nil
}
