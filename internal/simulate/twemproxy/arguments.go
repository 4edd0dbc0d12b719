package twemproxy

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// Arguments are what nutcracker's command line says, with its defaults.
type Arguments struct {
	Config    string // -c
	Pidfile   string // -p
	Output    string // -o
	StatsAddr string // -a and -s, host:port; statistics cannot be switched off
	Daemonize bool   // -d
	Test      bool   // -t: look at the configuration and end
}

// ParseArguments reads a command line without the program's name. Options stand apart (-d -c FILE) or long (--conf-file=FILE).
func ParseArguments(args []string) (Arguments, error) {
	a := Arguments{
		Config: "/etc/nutcracker/nutcracker.yml", Pidfile: "/run/nutcracker/nutcracker.pid", Output: "/var/log/nutcracker/nutcracker.log",
	}
	host, port := "0.0.0.0", "22222"
	long := map[string]string{
		"--test-conf": "-t", "--daemonize": "-d", "--verbose": "-v", "--output": "-o", "--conf-file": "-c", "--stats-port": "-s",
		"--stats-addr": "-a", "--stats-interval": "-i", "--pid-file": "-p", "--mbuf-size": "-m",
	}
	for i := 0; i < len(args); i++ {
		name, value, given := strings.Cut(args[i], "=")
		if short := long[name]; short != "" {
			name = short
		}
		switch name {
		case "-d":
			a.Daemonize = true
			continue
		case "-t":
			a.Test = true
			continue
		}
		if !given {
			if i++; i == len(args) {
				return a, fmt.Errorf("nutcracker: option %s requires a value", name)
			}
			value = args[i]
		}
		switch name {
		case "-c":
			a.Config = value
		case "-p":
			a.Pidfile = value
		case "-o":
			a.Output = value
		case "-a":
			host = value
		case "-s":
			if port = value; !isPort(value) {
				return a, fmt.Errorf("nutcracker: option -s value %s is not a valid port", value)
			}
		case "-v", "-i", "-m":
			if _, err := strconv.Atoi(value); err != nil {
				return a, fmt.Errorf("nutcracker: option %s requires a number", name)
			}
		default:
			return a, fmt.Errorf("nutcracker: invalid option -- '%s'", name)
		}
	}
	a.StatsAddr = net.JoinHostPort(host, port)
	return a, nil
}

// Test answers what `nutcracker -t` says of a file with this text, and its exit code. It says the bad news twice, and
// never why.
func Test(file, text string) (said string, code int) {
	if _, err := Parse(text); err != nil {
		return strings.Repeat(fmt.Sprintf("nutcracker: configuration file '%s' syntax is invalid\n", file), 2), 1
	}
	return fmt.Sprintf("nutcracker: configuration file '%s' syntax is ok\n", file), 0
}
