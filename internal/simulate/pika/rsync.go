package pika

import (
	"net"
	"sync"
)

// rsync is the daemon that takes full syncs in. Nothing is transferred through it here: it greets, as a probe expects.
type rsync struct {
	listener net.Listener
	addr     string
	wg       sync.WaitGroup
}

func listenRsync(addr string) (*rsync, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	r := &rsync{listener: l, addr: l.Addr().String()}
	r.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("@RSYNCD: 31.0\n"))
			_ = c.Close()
		}
	})
	return r, nil
}

func (r *rsync) close() {
	if r != nil {
		_ = r.listener.Close()
	}
}

func (r *rsync) wait() {
	if r != nil {
		r.wg.Wait()
	}
}

// RsyncAddr is where its rsync daemon listens, which a world shows at port+1000 (2.3: +3000); "" where rsync is missing.
func (s *Server) RsyncAddr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rsync == nil {
		return ""
	}
	return s.rsync.addr
}
