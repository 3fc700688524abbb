# Not hostile but particular: it makes each hypercall but the last, as it is made and as nobody makes it, and ends with
# status 1 where any register, flag or vector is not what it was. Handle 1 is a disk, handle 2 a net.
.macro prepares_calls
    # Arguments: walltime at SCRATCH + 0x100, and so on.
    mov qword ptr [SCRATCH + 0x200], BUFFER + 0x8000
    mov qword ptr [SCRATCH + 0x208], 1
    mov byte ptr [BUFFER + 0x8000], 0x2e
    mov qword ptr [SCRATCH + 0x300], 0
    .irp call, 0x400, 0x500
    mov qword ptr [SCRATCH + \call], 1
    mov qword ptr [SCRATCH + \call + 8], 512
    mov qword ptr [SCRATCH + \call + 16], BUFFER + 0x8000
    mov qword ptr [SCRATCH + \call + 24], 512
    .endr
    .irp call, 0x600, 0x700
    mov qword ptr [SCRATCH + \call], 2
    mov qword ptr [SCRATCH + \call + 8], BUFFER + 0x8000
    mov qword ptr [SCRATCH + \call + 16], 60
    .endr
.endm

.macro makes_calls
    .irp number, 1, 2, 3, 4, 5, 6, 7
    hypercall \number, SCRATCH + 0x100 * \number
    trapping_hypercall \number, SCRATCH + 0x100 * \number
    .endr
.endm

# Vectors \prefix 0 to \last of \size bytes: fills them from BUFFER, makes all calls, looks at them again.
.macro keeps_vectors prefix, last, size, move
    prepares_calls
    mov edi, BUFFER
    mov ecx, 0x800
2:  mov al, cl
    imul eax, eax, 37
    stosb
    loop 2b
    .set number, 0
    .rept \last + 1
    load_vector \move, \prefix, %number, \size
    .set number, number + 1
    .endr
    makes_calls
    .set number, 0
    .rept \last + 1
    store_vector \move, \prefix, %number, \size
    .set number, number + 1
    .endr
    mov esi, BUFFER
    mov edi, BUFFER + 0x1000
    mov ecx, (\last + 1) * \size
    repe cmpsb
    jne 3f
    halt 0
3:  halt 1
.endm

.macro load_vector move, prefix, number, size
    \move \prefix\number, [BUFFER + \number * \size]
.endm

.macro store_vector move, prefix, number, size
    \move [BUFFER + 0x1000 + \number * \size], \prefix\number
.endm

.altmacro
guest keeps_sse
    keeps_vectors xmm, 15, 16, movups
endguest keeps_sse

guest keeps_avx
    keeps_vectors ymm, 15, 32, vmovups
endguest keeps_avx

guest keeps_avx512
    keeps_vectors zmm, 31, 64, vmovups
endguest keeps_avx512
.noaltmacro

guest keeps_registers
    prepares_calls
    .irp number, 1, 2, 3, 4, 5, 6, 7
    .irp trap, 0, 1
    .irp flags, 0xcd5, 0x8d5, 0x0d5, 0x802, 0x002, 0x091, 0x844
    # Each is told by its own number, but the two that the call itself takes. Of the flags, the first turn has
    # all that a program may set, the others some.
    mov ecx, 1
    mov ebx, 3
    mov ebp, 5
    mov esi, 6
    mov edi, 7
    .irp register, 8, 9, 10, 11, 12, 13, 14, 15
    mov r\register, \register
    .endr
    mov r15, rsp
    push \flags
    popfq
    .if \trap
    mov edx, 0x500 + \number
    mov eax, SCRATCH + 0x100 * \number
    out dx, eax
    .else
    mov eax, SCRATCH + 0x100 * \number
    mov edx, 0x500 + \number
    out dx, eax
    .endif
    pushfq
    cld
    xor qword ptr [rsp], \flags
    test dword ptr [rsp], 0xcd5
    jnz 9f
    add rsp, 8
    cmp rsp, r15
    jne 9f
    cmp eax, SCRATCH + 0x100 * \number
    jne 9f
    cmp edx, 0x500 + \number
    jne 9f
    lea rax, [rcx + rbx]
    lea rax, [rax + rbp]
    lea rax, [rax + rsi]
    lea rax, [rax + rdi]
    .irp register, 8, 9, 10, 11, 12, 13, 14
    lea rax, [rax + r\register]
    .endr
    cmp rax, 1 + 3 + 5 + 6 + 7 + 8 + 9 + 10 + 11 + 12 + 13 + 14
    jne 9f
    .endr
    .endr
    .endr
    halt 0
9:  halt 1
endguest keeps_registers
