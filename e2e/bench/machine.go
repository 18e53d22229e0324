package main

import (
	"fmt"
	"os"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// Machine is what was measured on, and with which modules.
type Machine struct {
	CPU     string            `json:"cpu"`
	Cores   int               `json:"cores"`
	OS      string            `json:"os"`
	Go      string            `json:"go"`
	Date    string            `json:"date"`
	Modules map[string]string `json:"modules"`
}

// measured are the modules whose versions matter.
var measured = []string{
	"google.golang.org/grpc", "google.golang.org/protobuf", "github.com/spiffe/go-spiffe/v2",
	"github.com/grpc-ecosystem/go-grpc-middleware/v2", "github.com/golang-jwt/jwt/v5", "github.com/open-policy-agent/opa",
}

var (
	modelName = regexp.MustCompile(`(?m)^model name\s*: (.*)$`)
	release   = regexp.MustCompile(`^\d+\.\d+`)
)

// thisMachine describes the machine, as far as it says.
func thisMachine() Machine {
	m := Machine{
		CPU: runtime.GOARCH, Cores: runtime.GOMAXPROCS(0), OS: runtime.GOOS, Go: runtime.Version(),
		Date: time.Now().UTC().Format(time.DateOnly), Modules: map[string]string{},
	}
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if model := modelName.FindSubmatch(info); model != nil {
			m.CPU = string(model[1]) + ", " + m.CPU
		}
	}
	if kernel, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.OS = strings.TrimSpace(m.OS + " " + release.FindString(string(kernel)))
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			for _, path := range measured {
				if d.Path == path {
					m.Modules[path] = d.Version
				}
			}
		}
	}
	return m
}

// String describes the machine in a line.
func (m Machine) String() string {
	return fmt.Sprintf("%s, %d cores, %s, %s, %s", m.CPU, m.Cores, m.OS, m.Go, m.Date)
}
