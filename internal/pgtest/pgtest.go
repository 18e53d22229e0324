// Package pgtest runs a private PostgreSQL, and pgbouncer before it, for the
// tests of a package, on unix sockets in a directory of their own. PostgreSQL
// refuses to run as root, so there it runs as the user nobody.
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tenantmesh/tenantmesh/internal/child"
)

// The roles of every database: its owner, who owns what tests make, and the
// application's. "postgres" is the superuser.
const (
	Superuser = "postgres"
	Owner     = "owner"
	App       = "app"
)

var server struct {
	sync.Mutex
	*cluster
	err       error
	databases atomic.Int64
}

// Run runs the tests of a TestMain and stops what they started.
func Run(m *testing.M) int {
	code := m.Run()
	if server.cluster != nil {
		server.stop()
	}
	return code
}

// Database is a database of its own, on the server that the tests of a package share.
type Database struct {
	// Name is its name.
	Name string
	c    *cluster
}

// New makes a database. It skips the test where there is no PostgreSQL, and fails it in CI.
func New(tb testing.TB) *Database {
	tb.Helper()
	server.Lock()
	if server.cluster == nil && server.err == nil {
		server.cluster, server.err = start()
	}
	c, err := server.cluster, server.err
	server.Unlock()
	missing(tb, err, "postgresql")
	d := &Database{fmt.Sprintf("test%d", server.databases.Add(1)), c}
	(&Database{"postgres", c}).Exec(tb, Superuser, "CREATE DATABASE "+d.Name+" OWNER "+Owner)
	return d
}

// missing ends the test if a program is not there, or not as it must be.
func missing(tb testing.TB, err error, pkg string) {
	tb.Helper()
	switch {
	case err == nil:
	case errors.Is(err, exec.ErrNotFound) && os.Getenv("CI") == "":
		tb.Skipf("install the Debian package %s: %v", pkg, err)
	default:
		tb.Fatal(err)
	}
}

// DSN is how role connects.
func (d *Database) DSN(role string) string { return d.c.dsn(5432, role, d.Name) }

// Exec runs statements as role, or fails the test.
func (d *Database) Exec(tb testing.TB, role string, statements ...string) {
	tb.Helper()
	if err := d.Try(role, statements...); err != nil {
		tb.Fatal(err)
	}
}

// Try runs statements as role.
func (d *Database) Try(role string, statements ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := pgx.Connect(ctx, d.DSN(role))
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	for _, s := range statements {
		if _, err := c.Exec(ctx, s); err != nil {
			return fmt.Errorf("%w (%s) in %s", err, detail(err), s)
		}
	}
	return nil
}

// Pooled starts a pgbouncer in transaction mode, with few connections to the
// server, and returns how role connects to it. It ends with the test.
func (d *Database) Pooled(tb testing.TB, role string) string {
	tb.Helper()
	path, err := find("pgbouncer")
	missing(tb, err, "pgbouncer")
	dir, err := os.MkdirTemp("", "pgb")
	if err == nil {
		tb.Cleanup(func() { _ = os.RemoveAll(dir) })
		err = d.c.own(dir)
	}
	if err == nil {
		err = write(filepath.Join(dir, "users"), fmt.Sprintf("%q \"\"\n%q \"\"\n", role, Superuser))
	}
	if err == nil {
		err = write(filepath.Join(dir, "ini"), fmt.Sprintf(`[databases]
* = host=%s port=5432
[pgbouncer]
unix_socket_dir = %s
listen_port = 6432
auth_type = trust
auth_file = %[2]s/users
pool_mode = transaction
default_pool_size = 3
max_client_conn = 200
`, d.c.dir, dir))
	}
	var stop func()
	if err == nil {
		stop, err = d.c.run(dir, 6432, syscall.SIGINT, path, filepath.Join(dir, "ini"))
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(stop)
	return (&cluster{dir: dir}).dsn(6432, role, d.Name)
}

// cluster is a running server.
type cluster struct {
	dir  string
	cred *syscall.Credential // nil: our own
	stop func()
}

func (c *cluster) dsn(port int, role, name string) string {
	return fmt.Sprintf("host=%s port=%d user=%s dbname=%s sslmode=disable", c.dir, port, role, name)
}

// find looks for a program in PATH and where Debian has those of PostgreSQL.
func find(name string) (string, error) {
	if p, err := exec.LookPath(name); err == nil && name == "pgbouncer" {
		return p, nil
	}
	found, err := filepath.Glob("/usr/lib/postgresql/[1-9][0-9]/bin/" + name)
	if err != nil {
		return "", err
	}
	if len(found) > 0 {
		return slices.Max(found), nil
	}
	if _, err := os.Stat("/usr/sbin/" + name); err == nil {
		return "/usr/sbin/" + name, nil
	}
	return exec.LookPath(name)
}

func start() (*cluster, error) {
	initdb, err := find("initdb")
	if err != nil {
		return nil, err
	}
	// The path of a socket must be short.
	dir, err := os.MkdirTemp("", "pg")
	if err != nil {
		return nil, err
	}
	c := &cluster{dir: dir}
	remove := func() { _ = os.RemoveAll(dir) }
	if err := c.start(initdb); err != nil {
		remove()
		return nil, err
	}
	stop := c.stop
	c.stop = func() { stop(); remove() }
	return c, (&Database{"postgres", c}).Try(Superuser, "CREATE ROLE "+Owner+" LOGIN", "CREATE ROLE "+App+" LOGIN")
}

func (c *cluster) start(initdb string) error {
	if os.Geteuid() == 0 {
		u, err := user.Lookup("nobody")
		if err != nil {
			return err
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return err
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			return err
		}
		c.cred = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	if err := c.own(c.dir); err != nil {
		return err
	}
	data := filepath.Join(c.dir, "d")
	cmd := exec.Command(initdb, "-D", data, "-U", Superuser, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions") //nolint:noctx,gosec // it ends by itself; find found it
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.cred}
	cmd.Dir = c.dir
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, text)
	}
	var err error
	// SIGINT is a fast shutdown: it does not wait for sessions.
	c.stop, err = c.run(c.dir, 5432, syscall.SIGINT, filepath.Join(filepath.Dir(initdb), "postgres"), "-D", data,
		"-c", "listen_addresses=", "-c", "unix_socket_directories="+c.dir, "-c", "fsync=off", "-c", "max_connections=200")
	return err
}

// own gives dir to the user that the programs run as. Other users may connect.
func (c *cluster) own(dir string) error {
	if c.cred == nil {
		return nil
	}
	return errors.Join(os.Chmod(dir, 0o711), os.Chown(dir, int(c.cred.Uid), int(c.cred.Gid))) //nolint:gosec // for its socket
}

// run starts a program and waits for its socket. It ends with the test's process, however that ends.
func (c *cluster) run(dir string, port int, end syscall.Signal, path string, args ...string) (stop func(), err error) {
	var text strings.Builder
	cmd := exec.Command(path, args...) //nolint:noctx,gosec // stop ends it; find found it
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &text, &text
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.cred}
	exited, err := child.Start(cmd, end)
	if err != nil {
		return nil, err
	}
	stop = func() {
		_ = cmd.Process.Signal(end)
		<-exited
	}
	socket := filepath.Join(dir, ".s.PGSQL."+strconv.Itoa(port))
	for deadline := time.Now().Add(30 * time.Second); ; {
		select {
		case <-exited:
			return nil, fmt.Errorf("%s ended: %s", path, text.String())
		case <-time.After(10 * time.Millisecond):
		}
		_, err := os.Stat(socket)
		if err == nil && ready((&cluster{dir: dir}).dsn(port, Superuser, "postgres")) {
			return stop, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) || time.Now().After(deadline) {
			stop()
			return nil, fmt.Errorf("%s does not answer: %s", path, text.String())
		}
	}
}

// ready says whether whoever listens answers.
func ready(dsn string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return false
	}
	_ = c.Close(ctx)
	return true
}

func write(path, text string) error {
	return os.WriteFile(path, []byte(text), 0o644) //nolint:gosec // another user reads it
}

// detail is what the server says beside an error's message.
func detail(err error) string {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Detail
	}
	return ""
}
