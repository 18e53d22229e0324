package attacktest

import "encoding/base64"

// Text is the encoding of the kit's metadata values (SPEC.md, section 3).
var Text = base64.NewEncoding("!#$&'()*+;<>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]^`bdfghjklmnqvwxyz{|}~").WithPadding(base64.NoPadding)
