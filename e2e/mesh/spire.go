package mesh

import (
	"context"
	"errors"
)

func newSPIRE(context.Context, *Mesh) error { return errors.New("mesh: not yet") }
