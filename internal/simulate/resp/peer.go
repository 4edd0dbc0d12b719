package resp

import (
	"bufio"
	"errors"
	"net"
	"strings"
	"sync"
)

// Peer is the server's end of a client's connection.
type Peer struct {
	Conn net.Conn
	Gone chan struct{} // closed when the connection is
	once sync.Once
}

// NewPeer wraps a connection that was accepted.
func NewPeer(c net.Conn) *Peer { return &Peer{Conn: c, Gone: make(chan struct{})} }

// Close ends the connection.
func (p *Peer) Close() {
	p.once.Do(func() {
		close(p.Gone)
		_ = p.Conn.Close()
	})
}

// Serve answers requests in their order, until the connection ends or handle says so. It reads on while handle works, so that
// Gone tells of a client that left meanwhile; what it had sent before is handled all the same. Answers to requests
// that came together go out together.
func (p *Peer) Serve(handle func(args []string) (reply []byte, keep bool)) {
	requests := make(chan []string, 64)
	var reader sync.WaitGroup
	reader.Go(func() { p.read(requests) })
	defer reader.Wait()
	defer p.Close()
	var out []byte
	for args := range requests {
		reply, keep := handle(args)
		out = append(out, reply...)
		if len(requests) == 0 || !keep {
			_, _ = p.Conn.Write(out) // a client that left gets no answers, and its requests count
			out = out[:0]
		}
		if !keep {
			p.Close()
			for range requests { // the reader may stand before a full channel
			}
			return
		}
	}
}

func (p *Peer) read(requests chan<- []string) {
	defer close(requests)
	r := bufio.NewReaderSize(p.Conn, 16<<10)
	for {
		args, err := ReadCommand(r)
		if err != nil {
			if errors.Is(err, ErrProtocol) {
				_, reason, _ := strings.Cut(err.Error(), ": ")
				_, _ = p.Conn.Write([]byte("-ERR Protocol error: " + reason + "\r\n"))
			}
			p.Close()
			return
		}
		requests <- args
	}
}
