package Test::Nginx::Socket::Lua::Stream;

# Under the original runner the stream_* sections exist in files that use
# this module; here they always do.

use Test::Nginx::Socket::Lua -Base;

1;
